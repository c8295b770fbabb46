// Kafka's own codec as an oracle: exchanges random messages with protocol/examples/codec_oracle.rs.
//   Oracle check                             reads NAME VERSION HEX JSON, fails unless Kafka makes HEX of HEX and HEX of JSON
//   Oracle accept                            reads NAME VERSION HEX HEX, fails unless Kafka makes the second HEX of the first
//   Oracle errors                            prints NUMBER NAME RETRIABLE of every error code
//   Oracle generate DEFINITIONS SEED COUNT   reads NAME VERSION ..., prints NAME VERSION HEX, COUNT a version, from Kafka's definitions

import com.fasterxml.jackson.core.json.JsonReadFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashSet;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;

public final class Oracle {
    private static final JsonNodeFactory JSON = JsonNodeFactory.instance;
    private static final JsonMapper MAPPER = JsonMapper.builder().enable(JsonReadFeature.ALLOW_JAVA_COMMENTS).build();

    private record Codec(Class<?> type, Method fromJson) { }

    private static final Map<String, Codec> CODECS = new HashMap<>();

    private static Codec codec(String name) throws ReflectiveOperationException {
        Codec known = CODECS.get(name);
        if (known != null) return known;
        String[] candidates = {
            "org.apache.kafka.common.message." + name + "Data",
            "org.apache.kafka.common.message." + name,
            "org.apache.kafka.coordinator.group.generated." + name,
        };
        for (String candidate : candidates) {
            try {
                Class<?> type = Class.forName(candidate);
                Method fromJson = Class.forName(candidate + "JsonConverter").getMethod("read", JsonNode.class, short.class);
                CODECS.put(name, new Codec(type, fromJson));
                return CODECS.get(name);
            } catch (ClassNotFoundException absent) {
                // The next candidate.
            }
        }
        throw new ClassNotFoundException(name);
    }

    private static byte[] encode(Message message, short version) {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer buffer = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(buffer), cache, version);
        if (buffer.hasRemaining()) throw new IllegalStateException("size and encoding disagree");
        return buffer.array();
    }

    private static Message decode(String name, byte[] bytes, short version) throws ReflectiveOperationException {
        Message message = (Message) codec(name).type().getConstructor().newInstance();
        ByteBuffer buffer = ByteBuffer.wrap(bytes);
        message.read(new ByteBufferAccessor(buffer), version);
        if (buffer.hasRemaining()) throw new IllegalStateException(buffer.remaining() + " bytes left");
        return message;
    }

    private static Message fromJson(String name, JsonNode json, short version) throws ReflectiveOperationException {
        return (Message) codec(name).fromJson().invoke(null, json, version);
    }

    private static int check(BufferedReader in, PrintStream out) throws Exception {
        int compared = 0;
        int differences = 0;
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] parts = line.split(" ", 4);
            short version = Short.parseShort(parts[1]);
            byte[] bytes = HexFormat.of().parseHex(parts[2]);
            String again;
            String built;
            try {
                again = HexFormat.of().formatHex(encode(decode(parts[0], bytes, version), version));
                built = HexFormat.of().formatHex(encode(fromJson(parts[0], MAPPER.readTree(parts[3]), version), version));
            } catch (Exception error) {
                Throwable cause = error.getCause() == null ? error : error.getCause();
                again = built = cause.toString();
            }
            compared++;
            if (!again.equals(parts[2]) || !built.equals(parts[2])) {
                differences++;
                if (differences <= 20) out.printf("%s%n  again %s%n  built %s%n", line, again, built);
            }
        }
        out.printf("%d messages compared, %d differences%n", compared, differences);
        return differences == 0 && compared > 0 ? 0 : 1;
    }

    /** Forgets tagged fields of unknown tags, which Kafka keeps and our codec skips. */
    private static void forgetUnknownTags(Object value) throws IllegalAccessException {
        if (value instanceof Iterable<?> elements) {
            for (Object element : elements) forgetUnknownTags(element);
        }
        if (!(value instanceof Message message)) return;
        message.unknownTaggedFields().clear();
        for (Field field : message.getClass().getDeclaredFields()) {
            if (Modifier.isStatic(field.getModifiers())) continue;
            field.setAccessible(true);
            if (field.get(message) instanceof Message || field.get(message) instanceof Collection) {
                forgetUnknownTags(field.get(message));
            }
        }
    }

    private static int accept(BufferedReader in, PrintStream out) throws Exception {
        int compared = 0;
        int differences = 0;
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] parts = line.split(" ", -1);
            short version = Short.parseShort(parts[1]);
            String kafkas;
            try {
                Message message = decode(parts[0], HexFormat.of().parseHex(parts[2]), version);
                forgetUnknownTags(message);
                kafkas = HexFormat.of().formatHex(encode(message, version));
            } catch (Exception error) {
                kafkas = error.toString();
            }
            compared++;
            if (!kafkas.equals(parts[3])) {
                differences++;
                if (differences <= 20) out.printf("%s%n  Kafka %s%n", line, kafkas);
            }
        }
        out.printf("%d messages compared, %d differences%n", compared, differences);
        return differences == 0 && compared > 0 ? 0 : 1;
    }

    private static int errors(PrintStream out) {
        for (Errors error : Errors.values()) {
            out.println(error.code() + " " + error.name() + " " + (error.exception() instanceof RetriableException));
        }
        return 0;
    }

    private static int generate(BufferedReader in, PrintStream out, Path definitions, long seed, int count) throws Exception {
        Set<String> versions = new LinkedHashSet<>();
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] parts = line.split(" ", 3);
            versions.add(parts[0] + " " + parts[1]);
        }
        for (String nameAndVersion : versions) {
            String name = nameAndVersion.split(" ")[0];
            short version = Short.parseShort(nameAndVersion.split(" ")[1]);
            JsonNode definition = MAPPER.readTree(Files.readString(definitions.resolve(name + ".json")));
            Generator generator = new Generator(definition, version, new Random(seed + nameAndVersion.hashCode()));
            for (int i = 0; i < count; i++) {
                Message message = fromJson(name, generator.struct(definition.get("fields")), version);
                out.println(nameAndVersion + " " + HexFormat.of().formatHex(encode(message, version)));
            }
        }
        out.flush();
        return 0;
    }

    /** Random messages in JSON, from a definition. */
    private record Generator(JsonNode definition, short version, Random random) {
        private boolean in(JsonNode versions) {
            String text = versions == null ? "none" : versions.asText();
            if (text.equals("none")) return false;
            if (text.endsWith("+")) return version >= Short.parseShort(text.substring(0, text.length() - 1));
            String[] ends = text.split("-");
            return version >= Short.parseShort(ends[0]) && version <= Short.parseShort(ends[ends.length - 1]);
        }

        ObjectNode struct(JsonNode fields) {
            ObjectNode struct = JSON.objectNode();
            for (JsonNode field : fields) {
                if (!in(field.get("versions"))) continue;
                // A tagged field that is missing has its default.
                if (in(field.get("taggedVersions")) && random.nextBoolean()) continue;
                String name = field.get("name").asText();
                boolean isNull = in(field.get("nullableVersions")) && random.nextInt(4) == 0;
                JsonNode value = isNull ? JSON.nullNode() : value(field.get("type").asText(), field);
                struct.set(Character.toLowerCase(name.charAt(0)) + name.substring(1), value);
            }
            return struct;
        }

        private long number(int bits) {
            return random.nextInt(3) == 0 ? random.nextLong() >> (64 - bits) : random.nextInt(100) - 10;
        }

        private JsonNode value(String type, JsonNode field) {
            switch (type) {
                case "bool": return JSON.booleanNode(random.nextBoolean());
                case "int8": return JSON.numberNode(number(8));
                case "int16": return JSON.numberNode(number(16));
                case "uint16": return JSON.numberNode(number(16) & 0xffff);
                case "int32": return JSON.numberNode(number(32));
                case "int64": return JSON.numberNode(number(64));
                case "float64": return JSON.numberNode(random.nextGaussian());
                case "uuid": return JSON.textNode(Base64.getUrlEncoder().withoutPadding().encodeToString(bytes(16)));
                case "string": return JSON.textNode(text());
                case "bytes", "records": return JSON.textNode(Base64.getEncoder().encodeToString(bytes(random.nextInt(300))));
                default:
            }
            if (type.startsWith("[]")) {
                ArrayNode array = JSON.arrayNode();
                for (int i = random.nextInt(4); i > 0; i--) array.add(value(type.substring(2), field));
                return array;
            }
            if (field.has("fields")) return struct(field.get("fields"));
            for (JsonNode common : definition.get("commonStructs")) {
                if (common.get("name").asText().equals(type)) return struct(common.get("fields"));
            }
            throw new IllegalArgumentException(type);
        }

        private byte[] bytes(int length) {
            byte[] bytes = new byte[length];
            random.nextBytes(bytes);
            return bytes;
        }

        private String text() {
            StringBuilder text = new StringBuilder();
            String[] letters = {"a", "Z", "0", "-", ".", "é", "마", "🎭"};
            int length = random.nextInt(20) == 0 ? 200 : random.nextInt(12);
            for (int i = 0; i < length; i++) text.append(letters[random.nextInt(letters.length)]);
            return text.toString();
        }
    }

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        int status = switch (args.length == 0 ? "" : args[0]) {
            case "check" -> check(in, out);
            case "accept" -> accept(in, out);
            case "errors" -> errors(out);
            case "generate" -> generate(in, out, Path.of(args[1]), Long.parseLong(args[2]), Integer.parseInt(args[3]));
            default -> throw new IllegalArgumentException("Oracle check | Oracle accept | Oracle errors | Oracle generate DEFINITIONS SEED COUNT");
        };
        out.flush();
        System.exit(status);
    }
}
