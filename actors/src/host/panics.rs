//! Where a caught panic happened: a hook notes it per thread, the guard that catches the panic takes it.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

static INSTALL: Once = Once::new();

/// A panic that was caught.
#[derive(Debug)]
pub(crate) struct Caught {
    pub(crate) message: String,
    /// `file:line:column`.
    pub(crate) site: String,
}

/// Notes the site of every panic before the hook that was installed earlier runs. Starting a tree calls it.
pub fn install_panic_hook() {
    INSTALL.call_once(|| {
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let site = info.location().map_or_else(|| "unknown".into(), ToString::to_string);
            // A thread that is ending has no cell any more.
            drop(LAST.try_with(|last| last.try_borrow_mut().map(|mut last| *last = Some(site))));
            earlier(info);
        }));
    });
}

/// Runs `work` and yields its value, or the panic it ended in.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Caught> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let site = LAST.try_with(|last| last.take()).ok().flatten().unwrap_or_else(|| "unknown".into());
        Caught { message: message_of(payload.as_ref()), site }
    })
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".into())
}

/// Refuses a build whose panics abort, because no supervisor can catch them: it does not compile.
pub const fn assert_panics_unwind() {
    const {
        assert!(cfg!(panic = "unwind"), "with panic=abort one actor's panic ends the node: build with panic=unwind");
    }
}
