//! The pure half of the counts of instructions: what callgrind's output says, and what is said of a count.

#[path = "../benches/counts/mod.rs"]
mod counts;

use counts::{Count, Expected, Made, Verdict, judge, parse};

const OUTPUT: &str = "\
version: 1
creator: callgrind-3.19.0
positions: line
events: Ir

ob=(1) /target/release/deps/instructions
fl=(1) mod.rs
fn=(1) counts::counted
0 100
cob=(2) /lib/libc.so.6
cfn=(2) memcpy
calls=4 0
0 4000
+3 11

ob=(2)
fn=(2)
0 4000

ob=(1)
fn=(3) walk
0 7
cfn=(1)
calls=1 0
* 111
totals: 4118
";

#[test]
fn what_a_callee_does_is_counted_once_and_where_it_is_done() {
    assert_eq!(parse(OUTPUT, "/target/release/deps/instructions"), Count { own: 118, library: 4000 });
}

#[test]
fn a_file_says_what_was_written() {
    let made =
        Made { compiler: "rustc 1".to_owned(), library: "glibc 2".to_owned(), valgrind: "valgrind-3".to_owned() };
    let mut before = Expected::default();
    before.counts.insert("a".to_owned(), (Count::default(), 5.0));
    let counts = [("a", Count { own: 10, library: 2 }), ("b", Count { own: 20, library: 0 })];
    let read = Expected::read(&Expected::write(&made, &counts, &before));
    assert_eq!(read.made, made);
    assert_eq!(read.counts["a"], (Count { own: 10, library: 2 }, 5.0));
    assert_eq!(read.counts["b"], (Count { own: 20, library: 0 }, 2.0));
}

#[test]
fn a_rise_fails_and_a_fall_is_told() {
    let then = (Count { own: 1000, library: 1000 }, 2.0);
    let is = |own, library, with_library| judge(Count { own, library }, Some(&then), with_library);
    assert_eq!(is(1020, 1000, true), Verdict::Same);
    assert_eq!(is(1021, 1000, true), Verdict::Above);
    assert_eq!(is(979, 1000, true), Verdict::Below);
    // A copy more is in the library alone.
    assert_eq!(is(1000, 1100, true), Verdict::Above);
    assert_eq!(is(1000, 1100, false), Verdict::Same);
    assert_eq!(judge(then.0, None, true), Verdict::Unknown);
}
