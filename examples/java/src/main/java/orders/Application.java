package orders;

import java.util.Map;
import org.apache.kafka.clients.admin.NewTopic;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.builder.SpringApplicationBuilder;
import org.springframework.context.annotation.Bean;
import org.springframework.kafka.config.TopicBuilder;

/**
 * Two programs of the order pipeline, with Spring Kafka.
 *
 * <pre>
 * java -jar orders.jar produce|mail [TOPIC] [COUNT]
 * </pre>
 *
 * {@link OrderProducer} writes with a KafkaTemplate, {@link MailService} reads with a @KafkaListener; application.properties has the rest.
 */
@SpringBootApplication
public class Application {
    public static void main(String[] arguments) {
        String program = arguments.length > 0 ? arguments[0] : "";
        if (!program.equals("produce") && !program.equals("mail")) {
            System.err.println("which program? produce or mail");
            System.exit(2);
        }
        var context = new SpringApplicationBuilder(Application.class)
                .profiles(program)
                .properties(Map.of(
                        "orders.topic", arguments.length > 1 ? arguments[1] : "orders",
                        "orders.count", arguments.length > 2 ? arguments[2] : "10"))
                .run(arguments);
        System.exit(SpringApplication.exit(context));
    }

    /** Spring creates the topic unless it exists. */
    @Bean
    NewTopic topic(@Value("${orders.topic}") String topic) {
        return TopicBuilder.name(topic).partitions(3).build();
    }
}
