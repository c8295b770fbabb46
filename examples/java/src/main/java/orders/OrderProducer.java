package orders;

import java.util.ArrayList;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.CommandLineRunner;
import org.springframework.context.annotation.Profile;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.stereotype.Component;

/** Orders come in. Look at: the customer is the key, so one customer's orders are in one partition, in order. */
@Component
@Profile("produce")
class OrderProducer implements CommandLineRunner {
    private final KafkaTemplate<String, Order> template;
    private final String topic;
    private final int count;

    OrderProducer(
            KafkaTemplate<String, Order> template,
            @Value("${orders.topic}") String topic,
            @Value("${orders.count}") int count) {
        this.template = template;
        this.topic = topic;
        this.count = count;
    }

    @Override
    public void run(String... arguments) throws Exception {
        var answers = new ArrayList<CompletableFuture<?>>();
        for (int number = 1; number <= count; number++) {
            Order order = Order.sample("java", number);
            answers.add(template.send(topic, order.customer(), order));
        }
        // Throws what kept any of them from being written.
        CompletableFuture.allOf(answers.toArray(CompletableFuture[]::new)).get(60, TimeUnit.SECONDS);
        System.out.println("java: " + count + " orders written");
    }
}
