package orders;

import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.CommandLineRunner;
import org.springframework.context.annotation.Profile;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.config.KafkaListenerEndpointRegistry;
import org.springframework.stereotype.Component;

/**
 * Customers are told of their orders. A group of its own, so it sees every order, whichever program put it in. Look at: it ends after COUNT orders, and
 * started again it goes on behind them.
 */
@Component
@Profile("mail")
class MailService implements CommandLineRunner {
    private final KafkaListenerEndpointRegistry listeners;
    private final Set<String> done = new HashSet<>();
    private final Map<String, Integer> mails = new TreeMap<>();
    private final CountDownLatch missing;
    private int records;

    MailService(KafkaListenerEndpointRegistry listeners, @Value("${orders.count}") int count) {
        this.listeners = listeners;
        this.missing = new CountDownLatch(count);
    }

    /** Is called for one order after the other. If it throws, the order comes again. */
    @KafkaListener(topics = "${orders.topic}", groupId = "${orders.topic}-mail")
    void mail(Order order) {
        records++;
        if (done.add(order.id())) {
            System.out.println("mail: " + order.id() + " to " + order.customer() + ": " + order.quantity() + " " + order.item() + " on the way");
            mails.merge(order.customer(), 1, Integer::sum);
            missing.countDown();
        }
    }

    /** The program's main thread: waits for the orders, then has the listener commit and leave its group. */
    @Override
    public void run(String... arguments) throws InterruptedException {
        boolean complete = missing.await(120, TimeUnit.SECONDS);
        listeners.stop();
        if (!complete) {
            throw new IllegalStateException(missing.getCount() + " orders have not come within two minutes");
        }
        mails.forEach((customer, count) -> System.out.println("mail: " + customer + " " + count));
        System.out.println("mail: " + done.size() + " orders in " + records + " records");
    }
}
