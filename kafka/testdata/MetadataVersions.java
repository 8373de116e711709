import org.apache.kafka.server.common.MetadataVersion;

/** Prints the levels and names of metadata.version, one a line. */
public class MetadataVersions {
    public static void main(String[] args) {
        for (MetadataVersion version : MetadataVersion.values()) {
            System.out.println(version.featureLevel() + " " + version.version());
        }
    }
}
