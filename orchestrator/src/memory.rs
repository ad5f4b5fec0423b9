//! The memory of the process: its allocator is jemalloc, with bounds that suit a server which is idle most of its life,
//! and what only the start has read of the program itself is let go.
//!
//! glibc's gives each thread an arena of its own and returns little of it; bounded to two arenas, a fifth of a write's
//! time went into it (docs/adr/0013-allocator.md).

#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static JEMALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's options (its manual, `malloc_conf`); the environment's `MALLOC_CONF` is read after these.
///
/// Few arenas, since all threads come to rest on a few cores; what is free for a second goes back to the kernel, by a
/// thread of the allocator's own, so that an idle process shrinks too.
#[cfg(not(target_env = "msvc"))]
#[expect(
    unsafe_code,
    reason = "the allocator finds its options by the name of a symbol that nothing else has"
)]
#[unsafe(export_name = "malloc_conf")]
static OPTIONS: Option<&'static libc::c_char> = {
    const TEXT: &[u8] = b"narenas:4,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";
    // SAFETY: the text is static and ends with a zero byte; one byte is as good as the other kind.
    Some(unsafe { &*TEXT.as_ptr().cast::<libc::c_char>() })
};

/// What is free in all arenas goes back to the kernel at once, as after a query that took much. Takes some milliseconds.
pub(crate) fn give_back() {
    // 4096 is MALLCTL_ARENAS_ALL.
    const PURGE: &[u8] = b"arena.4096.purge\0";
    #[expect(unsafe_code, reason = "the safe wrapper has no call without a value")]
    // SAFETY: the name ends with a zero byte; this call reads and writes no value.
    let refused = unsafe {
        tikv_jemalloc_sys::mallctl(
            PURGE.as_ptr().cast(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
        )
    };
    if refused != 0 {
        tracing::debug!(errno = refused, "the allocator gives nothing back");
    }
}

/// Unmaps the pages of the program's text that are mapped now; what is run again is mapped again, from the page cache.
///
/// A start runs through much more of the program than an idle server does, and the kernel maps 64 KiB around each
/// address it touches: without this they would be counted as ours until memory is short. Only Linux says where they are.
pub(crate) fn let_go_of_start() -> std::io::Result<()> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for line in maps.lines().filter(|l| l.contains(" r-xp ") && l.ends_with(&*program.to_string_lossy())) {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let address = |s: &str| usize::from_str_radix(s, 16).ok();
        let Some((Some(from), Some(to))) = range.map(|(a, b)| (address(a), address(b))) else { continue };
        #[expect(unsafe_code, reason = "the kernel is told of a mapping by its address")]
        // SAFETY: the mapping is private, of a file and never written to: its pages come back as they were.
        let done = unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
        if done != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}
