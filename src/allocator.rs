//! The allocator and the one setting of it that pays.
//!
//! What a batch allocates the next one needs again. mimalloc gives free memory back to the kernel after some seconds,
//! in small pieces: the next batch has it cleared anew, page by page, and huge pages are broken up for it. Kept for some
//! minutes, it costs the ledger stage a tenth less time an event and up to 100 MB.
//!
//! **Unsafe code:** one call of mimalloc's C interface, before there is a second thread.
#![allow(unsafe_code)]

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_set, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, which the bindings do not name: how long free memory is kept, milliseconds. Arenas keep it
/// ten times as long.
const PURGE_DELAY: mi_option_t = 15;
const KEPT_MS: c_long = 10_000;

/// Keeps free memory for the next batch. Nothing changes where `MIMALLOC_PURGE_DELAY` is set.
pub fn keep_memory() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: an option by its number, and a value of its type; it must be called before other threads begin.
        unsafe { mi_option_set(PURGE_DELAY, KEPT_MS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number belongs to this version of mimalloc: its default tells the option from its neighbours.
    #[test]
    fn the_option_is_the_one_that_is_meant() {
        let get = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(get(), 1_000, "mimalloc 3's default of purge_delay");
        keep_memory();
        assert_eq!(get(), KEPT_MS);
    }
}
