//! The kernel's side: each of its questions becomes a question to [`Power`](crate::power::Power). Nothing is cached in
//! the kernel, so that a cut needs to tell nobody.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::content::{Content, PAGE};
use crate::disk::Disk;
use crate::names::{Body, Change, Names, Node, Number, ROOT};
use crate::power::Power;
use crate::syncs::{FAILED, Fate};

/// Nothing is kept by the kernel.
const NOW: Duration = Duration::ZERO;
/// Pages of the disk: 1 TiB, all free.
const PAGES: u64 = 1 << 28;
const NAME_MAX: u32 = 255;
const RIGHTS: u32 = 0o7777;

pub(crate) struct Mounted {
    disk: Disk,
    next: AtomicU64,
}

impl Mounted {
    pub(crate) fn new(disk: Disk) -> Self {
        Self { disk, next: AtomicU64::new(ROOT + 1) }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        body: Body,
    ) -> Result<FileAttr, Errno> {
        let mut power = self.disk.power();
        if power.seen.find(parent.0, name).is_some() {
            return Err(Errno::EEXIST);
        }
        power.seen.entries(parent.0).ok_or(Errno::ENOENT)?;
        pass(&mut power)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mode = u16::try_from(mode & RIGHTS).expect("12 bits");
        let node = Node { mode, user: request.uid(), group: request.gid(), body };
        let attributes = attributes(number, &node);
        power.change(Change::Create { parent: parent.0, name: name.to_owned(), number, node });
        Ok(attributes)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, directory: bool) -> Result<(), Errno> {
        let mut power = self.disk.power();
        let number = power.seen.find(parent.0, name).ok_or(Errno::ENOENT)?;
        match (power.seen.entries(number), directory) {
            (None, true) => return Err(Errno::ENOTDIR),
            (Some(_), false) => return Err(Errno::EISDIR),
            (Some(entries), true) if !entries.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        pass(&mut power)?;
        power.change(Change::Remove { parent: parent.0, name: name.to_owned() });
        Ok(())
    }

    fn rename(
        &self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let mut power = self.disk.power();
        let moved = power.seen.find(from.0.0, from.1).ok_or(Errno::ENOENT)?;
        let replaced = power.seen.find(to.0.0, to.1);
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return Err(Errno::EINVAL);
        }
        if replaced.is_some() && flags.contains(RenameFlags::RENAME_NOREPLACE) {
            return Err(Errno::EEXIST);
        }
        match replaced.map(|number| (power.seen.entries(number), power.seen.entries(moved).is_some())) {
            Some((Some(entries), true)) if !entries.is_empty() => return Err(Errno::ENOTEMPTY),
            Some((Some(_), false)) => return Err(Errno::EISDIR),
            Some((None, true)) => return Err(Errno::ENOTDIR),
            _ => {}
        }
        pass(&mut power)?;
        let (name, to_name) = (from.1.to_owned(), to.1.to_owned());
        power.change(Change::Rename { parent: from.0.0, name, to: to.0.0, to_name });
        Ok(())
    }

    fn sync(&self, number: Number, reply: ReplyEmpty) {
        let mut power = self.disk.power();
        if let Err(error) = pass(&mut power) {
            return reply.error(error);
        }
        let mut syncs = self.disk.syncs();
        match syncs.fate(&power.seen.path(number)) {
            Fate::Pass => {
                power.sync(number);
                reply.ok();
            }
            Fate::Fail => {
                power.lose(number);
                reply.error(FAILED);
            }
            Fate::Lie => reply.ok(),
            Fate::Wait => syncs.held.push((number, reply)),
        }
    }
}

/// Whether a change or a sync may happen.
fn pass(power: &mut Power) -> Result<(), Errno> {
    if power.pass() { Ok(()) } else { Err(FAILED) }
}

fn attributes(number: Number, node: &Node) -> FileAttr {
    let (kind, size) = match &node.body {
        Body::File(content) => (FileType::RegularFile, content.size()),
        Body::Directory(_) => (FileType::Directory, 0),
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: node.mode,
        nlink: 1,
        uid: node.user,
        gid: node.group,
        rdev: 0,
        blksize: u32::try_from(PAGE).expect("a small number"),
        flags: 0,
    }
}

fn attributes_of(names: &Names, number: Number) -> Result<FileAttr, Errno> {
    names.node(number).map(|node| attributes(number, node)).ok_or(Errno::ENOENT)
}

fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(reply: ReplyEntry, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attributes) => reply.entry(&NOW, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let power = self.disk.power();
        let number = power.seen.find(parent.0, name).ok_or(Errno::ENOENT);
        entry(reply, number.and_then(|number| attributes_of(&power.seen, number)));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes_of(&self.disk.power().seen, number.0) {
            Ok(attributes) => reply.attr(&NOW, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut power = self.disk.power();
        if (size.is_some() || mode.is_some())
            && let Err(error) = pass(&mut power)
        {
            return reply.error(error);
        }
        if let Some(size) = size {
            power.change(Change::Resize { number: number.0, size });
        }
        if let Some(mode) = mode {
            let mode = u16::try_from(mode & RIGHTS).expect("12 bits");
            power.change(Change::Mode { number: number.0, mode });
        }
        match attributes_of(&power.seen, number.0) {
            Ok(attributes) => reply.attr(&NOW, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let body = Body::Directory(BTreeMap::new());
        entry(reply, self.create(request, parent, name, mode & !umask, body));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.remove(parent, name, false));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.remove(parent, name, true));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.rename((parent, name), (to, to_name), flags));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.create(request, parent, name, mode & !umask, Body::File(Content::default())) {
            Ok(attributes) => {
                reply.created(&NOW, &attributes, Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let length = usize::try_from(size).expect("a length in memory");
        match self.disk.power().seen.content(number.0) {
            Some(content) => reply.data(&content.read(offset, length)),
            None => reply.error(Errno::EISDIR),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut power = self.disk.power();
        if let Err(error) = pass(&mut power) {
            reply.error(error);
        } else if power.write(number.0, offset, bytes) {
            reply.written(u32::try_from(bytes.len()).expect("the kernel counts it so"));
        } else {
            reply.error(Errno::EISDIR);
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(number.0, reply);
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(number.0, reply);
    }

    /// In the order of the files' numbers, so that a name that goes while somebody lists moves no other.
    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, after: u64, mut reply: ReplyDirectory) {
        let power = self.disk.power();
        let Some(entries) = power.seen.entries(number.0) else { return reply.error(Errno::ENOTDIR) };
        let by_number: BTreeMap<Number, &OsStr> =
            entries.iter().map(|(name, number)| (*number, name.as_os_str())).collect();
        for (number, name) in by_number.range(after + 1..) {
            let is_directory = power.seen.entries(*number).is_some();
            let kind = if is_directory { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(*number), *number, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let page = u32::try_from(PAGE).expect("a small number");
        reply.statfs(PAGES, PAGES, PAGES, PAGES, PAGES, page, NAME_MAX, page);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }
}
