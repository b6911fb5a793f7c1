//! The largest allocation of a piece of work, by libtorch or by Rust's allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mehl_soup_worker::engine::allocations::AllocationRecorder;
use tch::Device;

/// The system's allocator; each thread keeps the bytes of its largest request.
struct Watching;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

impl Watching {
    fn saw(&self, bytes: usize) {
        // A thread that ends has no place for it any more.
        let _ended = LARGEST.try_with(|largest| largest.set(largest.get().max(bytes)));
    }
}

// SAFETY: everything is done by the system's allocator.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.saw(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.saw(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.saw(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static WATCHING: Watching = Watching;

/// What `work` answers, and the bytes of the largest allocation of this thread meanwhile.
pub fn largest_allocation<R>(work: impl FnOnce() -> R) -> (R, usize) {
    let recorder = AllocationRecorder::new(Device::Cpu);
    LARGEST.set(0);
    let answer = work();
    let by_rust = LARGEST.get();
    let by_libtorch = recorder.end().into_iter().max().unwrap_or(0);
    (answer, by_rust.max(usize::try_from(by_libtorch).unwrap_or(0)))
}
