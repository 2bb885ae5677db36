//! The allocator of components for `wasm32-unknown-unknown`: dlmalloc, as in their standard library, but its first
//! 64 KiB lie in the memory that the component starts with. The standard library's grows the memory at the first
//! allocation; where each request has an instance of its own, a host that bounds memory by page protection then changes
//! it twice for each request, which costs more than all else of a small one. Targets with a libc have that from it.

#![allow(unsafe_code, reason = "an allocator hands out memory; it is compiled for wasm only")]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::memory_grow;
use core::cell::{Cell, UnsafeCell};
use core::ptr;

use dlmalloc::{Allocator, Dlmalloc};

/// A page of wasm, and what dlmalloc asks for at a time.
const PAGE_BYTES: usize = 64 << 10;

/// The first page: of zeros, so that it adds nothing to the component.
#[repr(align(16))]
struct FirstPage(UnsafeCell<[u8; PAGE_BYTES]>);

// SAFETY: the components have one thread.
unsafe impl Sync for FirstPage {}

static FIRST_PAGE: FirstPage = FirstPage(UnsafeCell::new([0; PAGE_BYTES]));

/// Where dlmalloc has its memory from.
struct Pages {
    first_is_taken: Cell<bool>,
}

// SAFETY: each piece of memory is handed out once: the first page because of the mark, all others because they are new.
unsafe impl Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        if size <= PAGE_BYTES && !self.first_is_taken.replace(true) {
            return (FIRST_PAGE.0.get().cast(), PAGE_BYTES, 0);
        }
        let pages = size.div_ceil(PAGE_BYTES);
        match memory_grow::<0>(pages) {
            usize::MAX => (ptr::null_mut(), 0, 0),
            before => {
                let (base, size) = (before * PAGE_BYTES, pages * PAGE_BYTES);
                // The last page of all addresses: no pointer may wrap around.
                let size = if base.checked_add(size).is_none() { size - 16 } else { size };
                (ptr::with_exposed_provenance_mut(base), size, 0)
            }
        }
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE_BYTES
    }
}

struct Heap(UnsafeCell<Dlmalloc<Pages>>);

// SAFETY: the components have one thread.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap =
    Heap(UnsafeCell::new(Dlmalloc::new_with_allocator(Pages { first_is_taken: Cell::new(false) })));

// SAFETY: dlmalloc keeps the rules of `GlobalAlloc`. It does not call itself, and there is one thread, so nobody else
// has a reference to it meanwhile.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.0.get()).malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.0.get()).calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the caller says that it came from here.
        unsafe { (*self.0.get()).free(pointer, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; the caller says that it came from here.
        unsafe { (*self.0.get()).realloc(pointer, layout.size(), layout.align(), size) }
    }
}
