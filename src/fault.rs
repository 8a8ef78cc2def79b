//! Named points between two lines at which a test has the process die, as a kill at that very moment would.
//!
//! They are there with the feature `fault-points` only, which no release has. `tests/crashes.rs` dies at each of them.

/// Dies here where `CREDITSTREAM_FAULT` is `name` or, at its third time here, `name:3`.
macro_rules! fault_point {
    ($name:literal) => {
        #[cfg(feature = "fault-points")]
        $crate::fault::reached($name);
        #[cfg(test)]
        $crate::ledger::simulation_reached($name);
    };
}
pub(crate) use fault_point;

/// Whether the simulation has planted this bug: `false` in everything but the unit tests, where it is known when the code
/// is compiled.
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(test)]
        let is_planted = $crate::ledger::is_planted($crate::ledger::Bug::$bug);
        #[cfg(not(test))]
        let is_planted = false;
        is_planted
    }};
}
pub(crate) use planted;

/// The process has reached a point.
#[cfg(feature = "fault-points")]
pub fn reached(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    static CHOSEN: LazyLock<Option<(String, AtomicU32)>> = LazyLock::new(|| {
        let chosen = std::env::var("CREDITSTREAM_FAULT").ok()?;
        let (name, time) = chosen.split_once(':').unwrap_or((&chosen, "1"));
        Some((name.to_owned(), AtomicU32::new(time.parse().unwrap_or(1))))
    });
    let Some((chosen, left)) = &*CHOSEN else { return };
    if chosen == name && left.fetch_sub(1, Ordering::SeqCst) == 1 {
        // No destructor runs, no buffer is flushed.
        std::process::abort();
    }
}
