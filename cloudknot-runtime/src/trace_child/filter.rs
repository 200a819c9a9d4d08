//! A filter of system calls (seccomp) for a process that traces types. A call that has an effect outside of the process fails
//! with "operation not permitted", as if the process had no permission for it.
//!
//! The filter guards against accidents, not against attacks: it lists what is refused, and a call that a future kernel
//! introduces is allowed. Writing to an open descriptor is allowed, but none is open that matters.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    Error, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter, SeccompRule,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// System calls that are always refused.
const REFUSED: &[&[c_long]] = &[FILES, SOCKETS, PROCESSES, SHARED, SYSTEM, ARCHITECTURE];

/// Changes of files and folders. Opening a file is a special case.
const FILES: &[c_long] = &[
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SETXATTRAT,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    REMOVEXATTRAT,
    libc::SYS_open_by_handle_at,
];

/// Connections. A process has no socket of its own but pairs, which reach nobody else.
const SOCKETS: &[c_long] = &[
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
];

/// Other programs, and other processes. Threads and signals to this process are special cases.
const PROCESSES: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_ptrace,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
];

/// Memory, semaphores and queues that outlive the process.
const SHARED: &[c_long] = &[
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

/// Changes of the system, which only root may request.
const SYSTEM: &[c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_syslog,
];

/// Older forms, which newer architectures lack.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &[c_long] = &[
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_creat,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_fork,
    libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const ARCHITECTURE: &[c_long] = &[];

// Not in libc for all targets. Since 2019, the numbers are the same on all architectures.
const FCHMODAT2: c_long = 452;
const SETXATTRAT: c_long = 463;
const REMOVEXATTRAT: c_long = 466;

/// System calls that are refused as if the kernel did not have them, so that the C library uses older ones. Their
/// arguments are in memory, which a filter cannot read.
const ABSENT: &[c_long] = &[
    libc::SYS_clone3,
    libc::SYS_openat2,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Installs the filter, for all threads of this process if possible.
pub(super) fn install() -> Result<(), Error> {
    apply(refused()?, libc::EPERM)?;
    apply(always(ABSENT).collect(), libc::ENOSYS)
}

fn apply(rules: Rules, error: i32) -> Result<(), Error> {
    let refuse = SeccompAction::Errno(error.cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    // Not possible if a library has given one of its threads a filter. The threads that trace are started by this one.
    seccompiler::apply_filter_all_threads(&program).or_else(|_| seccompiler::apply_filter(&program))
}

fn always(calls: &[c_long]) -> impl Iterator<Item = (i64, Vec<SeccompRule>)> {
    calls.iter().map(|call| (*call, Vec::new()))
}

fn refused() -> Result<Rules, Error> {
    let mut rules: Rules = REFUSED.iter().flat_map(|calls| always(calls)).collect();
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, opens_for_writing(1)?);
    rules.insert(libc::SYS_openat, opens_for_writing(2)?);
    // A process, not a thread of this one.
    let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
    rules.insert(libc::SYS_clone, vec![rule(0, Len::Dword, Op::MaskedEq(thread), 0)?]);
    // A process may end itself.
    let this = std::process::id();
    for call in [libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill] {
        rules.insert(call, vec![rule(0, Len::Dword, Op::Ne, this.into())?]);
    }
    Ok(rules)
}

/// Returns the rules for flags that create a file, empty it, or open it for writing.
fn opens_for_writing(flags: u8) -> Result<Vec<SeccompRule>, Error> {
    let values = [
        (libc::O_ACCMODE, libc::O_WRONLY),
        (libc::O_ACCMODE, libc::O_RDWR),
        (libc::O_CREAT, libc::O_CREAT),
        (libc::O_TRUNC, libc::O_TRUNC),
    ];
    let bits = |flag: i32| u64::from(flag.cast_unsigned());
    values.into_iter().map(|(mask, value)| rule(flags, Len::Dword, Op::MaskedEq(bits(mask)), bits(value))).collect()
}

fn rule(argument: u8, length: Len, operator: Op, value: u64) -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(vec![SeccompCondition::new(argument, length, operator, value)?])?)
}
