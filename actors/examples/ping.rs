//! Prints rates of asks and tells between two arbiters, and the memory of an idle actor.
//! `cargo run --release -p madang-actors --example ping`

use std::sync::Arc;
use std::time::{Duration, Instant};

use madang_actors::actor_ref::ActorRef;
use madang_actors::child_spec::Strategy;
use madang_actors::host::{Arbiter, Behavior, Branch, Child, Role, ShellContext, Tree, TreeOptions, clock};
use madang_actors::mailbox::Capacity;
use madang_actors::messages;
use madang_actors::reply::Reply;

messages! {
    enum PingMessage {
        control {}
        data { Tell, Ask { reply: Reply<u64> } }
    }
}

#[derive(Default)]
struct Ping {
    told: u64,
}

impl Behavior for Ping {
    type Message = PingMessage;

    fn handle(&mut self, message: PingMessage, _: &mut ShellContext<PingMessage>) {
        match message {
            PingMessage::Tell => self.told += 1,
            PingMessage::Ask { reply } => reply.send(self.told),
        }
    }
}

async fn tell(actor: &ActorRef<PingMessage>) {
    let deadline = clock::now() + Duration::from_secs(60);
    actor.send(PingMessage::Tell, deadline).await.expect("the actor runs");
}

async fn ask(actor: &ActorRef<PingMessage>) -> u64 {
    let (reply, answer) = Reply::new(|| u64::MAX);
    let deadline = clock::now() + Duration::from_secs(60);
    actor.send(PingMessage::Ask { reply }, deadline).await.expect("the actor runs");
    answer.await
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn rate(what: &str, count: u64, began: Instant) {
    println!("{what:<28} {:>10.0}/s", count as f64 / began.elapsed().as_secs_f64());
}

async fn measure(label: &str, actor: &ActorRef<PingMessage>) {
    const TELLS: u64 = 1_000_000;
    const ASKS: u64 = 50_000;
    let began = Instant::now();
    for _ in 0..TELLS {
        tell(actor).await;
    }
    assert_eq!(ask(actor).await % TELLS, 0);
    rate(&format!("tell, {label}"), TELLS, began);
    let began = Instant::now();
    for _ in 0..ASKS {
        ask(actor).await;
    }
    rate(&format!("ask, {label}"), ASKS, began);
    let began = Instant::now();
    let workers: Vec<_> = (0..256)
        .map(|_| {
            let actor = actor.clone();
            actix_rt::spawn(async move {
                for _ in 0..ASKS / 64 {
                    ask(&actor).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no worker panics");
    }
    rate(&format!("256 asks at once, {label}"), ASKS * 4, began);
}

fn main() {
    actix_rt::System::new().block_on(async {
        let (near, far) = ("near", "far");
        let (near, far) = (ActorRef::new(near, Capacity::default()), ActorRef::new(far, Capacity::default()));
        let arbiter = Arbiter::start("far", Role::Network).expect("a thread can be started");
        let crowd = Branch::dynamic("crowd");
        let handle = crowd.handle();
        let branch = Branch::new("ping", Strategy::OneForOne)
            .child(Child::actor(&near, madang_actors::host::Placement::Here, |_| Ok(Ping::default())))
            .child(Child::actor(&far, &arbiter, |_| Ok(Ping::default())))
            .child(crowd);
        let options =
            TreeOptions { on_escalation: Box::new(|reason| panic!("escalated: {reason}")), observer: Arc::new(()) };
        let mut tree = Tree::start(branch, options);
        tree.ready().await.expect("the tree starts");
        measure("same thread", &near).await;
        measure("other thread", &far).await;

        const CROWD: u64 = 20_000;
        let (before, began) = (resident_bytes(), Instant::now());
        for number in 0..CROWD {
            let actor = ActorRef::new(format!("actor-{number}"), Capacity::default());
            let child = Child::actor(&actor, &arbiter, |_| Ok(Ping::default()));
            handle.add(child).await.expect("the actor starts");
        }
        rate("start, one after the other", CROWD, began);
        println!("an idle actor: {} bytes resident", (resident_bytes() - before) / CROWD);
        println!("{}", tree.shutdown().await);
    });
}
