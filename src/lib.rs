//! The node: Kafka's APIs over the cluster's machines, the supervision tree, the command line.
