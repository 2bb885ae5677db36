//! What a child process used, as the kernel says when the child has ended. It neither ends nor reaps it.

use std::io;
use std::mem::MaybeUninit;
use std::process::Child;
use std::time::Duration;

/// Waits until a child has ended and returns the processor time of all its threads. The child is left to be waited for.
pub(super) fn cpu_of_ended(child: &Child) -> io::Result<Duration> {
    loop {
        match try_cpu(libc::c_long::from(child.id())) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn try_cpu(pid: libc::c_long) -> io::Result<Duration> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::c_long::from(libc::WEXITED | libc::WNOWAIT);
    // SAFETY: this system call (waitid(2), whose `rusage` the C library does not pass on) writes at most one `siginfo_t`
    // and one `rusage` to where these point, and both outlive it; it keeps neither.
    #[allow(unsafe_code, reason = "no safe interface has it")]
    let result = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::c_long::from(libc::P_PID),
            pid,
            info.as_mut_ptr(),
            options,
            usage.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it consists of integers, which were zero before the kernel wrote them.
    #[allow(unsafe_code, reason = "no safe interface has it")]
    let usage = unsafe { usage.assume_init() };
    Ok(duration(usage.ru_utime) + duration(usage.ru_stime))
}

fn duration(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_usec).unwrap_or_default();
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default()) + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_that_worked_used_its_time_and_can_still_be_waited_for() {
        let count = "n=0; while [ $n -lt 100000 ]; do n=$((n + 1)); done; exit 7";
        let mut child = Command::new("/bin/sh").args(["-c", count]).spawn().expect("a shell");
        let cpu = cpu_of_ended(&child).expect("it ends");
        assert!(cpu > Duration::from_millis(1), "{cpu:?}");
        assert_eq!(child.wait().expect("it is still there").code(), Some(7));
    }
}
