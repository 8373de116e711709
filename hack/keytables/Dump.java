import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.config.SslConfigs;

/**
 * Dump prints, as JSON, what the Kafka on the class path knows about its own configuration keys. It asks Kafka's ConfigDef
 * instead of reading the printed documentation, because the print omits internal keys and flattens the validators to prose.
 */
public final class Dump {
    public static void main(String[] args) throws Exception {
        Map<String, Object> out = new LinkedHashMap<>();
        out.put("version", org.apache.kafka.common.utils.AppInfoParser.getVersion());
        out.put("broker", keys((ConfigDef) invoke("kafka.server.KafkaConfig", "configDef"), updateModes()));
        out.put("topic", keys((ConfigDef) invoke("org.apache.kafka.storage.internals.log.LogConfig", "configDefCopy"), Map.of()));
        out.put("topicSynonyms", topicSynonyms());
        out.put("listenerDynamic", SslConfigs.RECONFIGURABLE_CONFIGS.stream().sorted().toList());
        out.put("verdicts", verdicts((ConfigDef) invoke("kafka.server.KafkaConfig", "configDef")));
        System.out.println(new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT).writeValueAsString(out));
    }

    private static Object invoke(String type, String method) throws Exception {
        Method m = Class.forName(type).getDeclaredMethod(method);
        m.setAccessible(true);
        return m.invoke(null);
    }

    /** The broker's dynamic keys and how they may be updated; before 4.3 this is a Scala object. */
    private static Map<?, ?> updateModes() throws Exception {
        try {
            return (Map<?, ?>) invoke("org.apache.kafka.server.config.DynamicBrokerConfig", "dynamicConfigUpdateModes");
        } catch (ClassNotFoundException older) {
            Class<?> scala = Class.forName("kafka.server.DynamicBrokerConfig$");
            Method modes = scala.getDeclaredMethod("dynamicConfigUpdateModes");
            modes.setAccessible(true);
            return (Map<?, ?>) modes.invoke(scala.getField("MODULE$").get(null));
        }
    }

    /** Topic key to the broker keys that give its default, strongest first. */
    private static Map<String, List<String>> topicSynonyms() throws Exception {
        Class<?> type = Class.forName("org.apache.kafka.server.config.ServerTopicConfigSynonyms");
        Map<String, List<String>> out = new TreeMap<>();
        for (Map.Entry<?, ?> e : ((Map<?, ?>) type.getField("ALL_TOPIC_CONFIG_SYNONYMS").get(null)).entrySet()) {
            List<String> names = new ArrayList<>();
            for (Object synonym : (List<?>) e.getValue()) {
                names.add((String) synonym.getClass().getMethod("name").invoke(synonym));
            }
            out.put((String) e.getKey(), names);
        }
        return out;
    }

    private static List<Map<String, Object>> keys(ConfigDef def, Map<?, ?> modes) throws Exception {
        List<Map<String, Object>> out = new ArrayList<>();
        for (ConfigDef.ConfigKey key : new TreeMap<>(def.configKeys()).values()) {
            Map<String, Object> m = new LinkedHashMap<>();
            m.put("name", key.name);
            m.put("type", key.type.toString());
            m.put("required", !key.hasDefault());
            m.put("default", key.hasDefault() ? ConfigDef.convertToString(key.defaultValue, key.type) : null);
            m.put("importance", key.importance.toString());
            m.put("internal", key.internalConfig);
            m.put("mode", modes.containsKey(key.name) ? modes.get(key.name).toString() : "read-only");
            m.put("doc", key.documentation);
            if (key.validator != null) {
                m.put("validator", validator(key.validator));
            }
            out.add(m);
        }
        return out;
    }

    private static Map<String, Object> validator(Object v) throws Exception {
        Map<String, Object> m = new LinkedHashMap<>();
        m.put("class", v.getClass().getSimpleName());
        m.put("text", v.toString());
        for (Class<?> c = v.getClass(); c != Object.class; c = c.getSuperclass()) {
            if (!c.getName().startsWith("org.apache.kafka.common.config.ConfigDef$")) {
                continue;
            }
            for (Field f : c.getDeclaredFields()) {
                f.setAccessible(true);
                Object value = f.get(v);
                if (value instanceof ConfigDef.ValidString) {
                    Field strings = ConfigDef.ValidString.class.getDeclaredField("validStrings");
                    strings.setAccessible(true);
                    m.put("validStrings", strings.get(value));
                } else if (value instanceof Number || value instanceof Boolean) {
                    m.put(f.getName(), value instanceof Number ? value.toString() : value);
                } else if (value instanceof java.util.Collection) {
                    m.put(f.getName(), value);
                }
            }
        }
        return m;
    }

    /**
     * What Kafka makes of some values: for one key of each kind of type and validator, each value with the text Kafka reads it as,
     * or null when Kafka refuses it. The tests of core/kconf hold its own judgement against this one.
     */
    private static Map<String, Map<String, String>> verdicts(ConfigDef def) throws Exception {
        Map<String, Map<String, String>> out = new TreeMap<>();
        Set<String> seen = new HashSet<>();
        for (ConfigDef.ConfigKey key : new TreeMap<>(def.configKeys()).values()) {
            if (key.type == ConfigDef.Type.CLASS || key.type == ConfigDef.Type.PASSWORD) {
                continue; // the one depends on the class path, the other prints no value
            }
            Map<String, Object> rule = key.validator == null ? Map.of() : validator(key.validator);
            if (seen.add(key.type + " " + rule)) {
                out.put(key.name, verdicts(key, rule));
            }
        }
        return out;
    }

    private static Map<String, String> verdicts(ConfigDef.ConfigKey key, Map<String, Object> rule) {
        Set<String> values = new TreeSet<>(List.of("", " ", "0", " 5 ", "+7", "-007", "-1", "-2", "1.5", "1e3", ".50", "5.", "x", "True", "yes", "32768",
            "2147483648", "9223372036854775807", "9223372036854775808", "1_000", "0x10", "--1", "a , b", "a,a", "a,,b", ",", "NONE", "none"));
        for (String bound : new String[] {"min", "max"}) {
            if (rule.get(bound) instanceof String text && text.matches("-?[0-9]{1,10}")) {
                values.addAll(List.of(text, String.valueOf(Long.parseLong(text) - 1), String.valueOf(Long.parseLong(text) + 1)));
            }
        }
        if (rule.get("validStrings") instanceof List<?> words && !words.isEmpty()) {
            String first = words.get(0).toString();
            values.addAll(List.of(first, first.toLowerCase(Locale.ROOT), first + "," + words.get(words.size() - 1), first + "," + first, first + ",x"));
        }
        Map<String, String> out = new LinkedHashMap<>();
        for (String value : values) {
            out.put(value, verdict(key, value));
        }
        return out;
    }

    private static String verdict(ConfigDef.ConfigKey key, String value) {
        try {
            Object parsed = ConfigDef.parseType(key.name, value, key.type);
            if (key.validator != null) {
                key.validator.ensureValid(key.name, parsed);
            }
            return ConfigDef.convertToString(parsed, key.type);
        } catch (ConfigException refused) {
            return null;
        }
    }

    private Dump() {
    }
}
