import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.Properties;

/** Reader prints the entries of every .properties file of a folder: file, key and value, each in base64 of UTF-8. */
public final class Reader {
    public static void main(String[] args) throws Exception {
        try (DirectoryStream<Path> files = Files.newDirectoryStream(Path.of(args[0]))) {
            for (Path file : files) {
                Properties properties = new Properties();
                try (InputStream in = Files.newInputStream(file)) {
                    properties.load(in); // as Kafka does it, so ISO 8859-1
                }
                for (String key : properties.stringPropertyNames()) {
                    System.out.println(base64(file.getFileName().toString()) + " " + base64(key) + " " + base64(properties.getProperty(key)));
                }
            }
        }
    }

    private static String base64(String s) {
        return Base64.getEncoder().encodeToString(s.getBytes(StandardCharsets.UTF_8));
    }

    private Reader() {
    }
}
