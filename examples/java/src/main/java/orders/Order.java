package orders;

import com.fasterxml.jackson.annotation.JsonProperty;

/** An order as it travels, the same JSON as in Rust and Python. */
public record Order(
        String id,
        String customer,
        String item,
        int quantity,
        @JsonProperty("price_cents") long priceCents) {

    private static final String[] CUSTOMERS = {"ann", "bob", "cat", "dan"};
    private static final String[] ITEMS = {"lamp", "chair", "desk"};
    private static final long[] PRICES = {2_500, 4_000, 12_000};

    /** A made-up order. */
    static Order sample(String source, int number) {
        int item = number % ITEMS.length;
        return new Order(source + "-" + number, CUSTOMERS[number % CUSTOMERS.length], ITEMS[item], 1 + number % 2, PRICES[item]);
    }
}
