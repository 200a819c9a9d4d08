//! Function that reports what it finds around it: included files, its user, its home folder, time zones.

use std::ffi::{CStr, c_char};
use std::path::Path;

use cloudknot_tests::trial::{Fact, Surroundings, json, print};

/// Reads an included file, and looks for these paths.
#[cloudknot::remote]
fn surroundings(file: &str, paths: &[String]) -> Result<Surroundings, String> {
    let text = |error: std::io::Error| error.to_string();
    let path = cloudknot::data(file).map_err(text)?;
    let home = std::env::var("HOME").unwrap_or_default();
    let (user, home_of_user) = user().unzip();
    Ok(Surroundings {
        data: std::fs::read_to_string(&path).map_err(text)?,
        data_is_writable: std::fs::OpenOptions::new().append(true).open(&path).is_ok(),
        home_is_writable: tempfile::tempfile_in(&home).is_ok(),
        home,
        user,
        home_of_user,
        folder: std::env::current_dir().map_err(text)?,
        offset: offset(1_750_000_000),
        variables: std::env::vars().map(|(name, _)| name).filter(|name| !name.starts_with("CLOUDKNOT_")).collect(),
        found: paths.iter().filter(|path| Path::new(path).exists()).cloned().collect(),
    })
}

/// Returns the name and the home folder of this process's user, as the C library finds them.
#[allow(unsafe_code)]
fn user() -> Option<(String, String)> {
    // SAFETY: no other thread of this process asks for users, so the entry and its strings stay valid.
    unsafe {
        let entry = libc::getpwuid(libc::getuid()).as_ref()?;
        let text = |text: *const c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
        Some((text(entry.pw_name), text(entry.pw_dir)))
    }
}

/// Returns how many seconds local time is ahead of UTC at this time, as the C library finds it.
#[allow(unsafe_code)]
fn offset(time: libc::time_t) -> i64 {
    // SAFETY: zeros are a valid value of the type, and both pointers are valid.
    unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        libc::localtime_r(&raw const time, &raw mut local);
        local.tm_gmtoff
    }
}

/// Runs the function for each of these files, and prints what it finds.
pub(crate) async fn print_all(files: &[&str]) -> cloudknot::Result<()> {
    for file in files {
        match surroundings.call(((*file).to_owned(), Vec::new())).await {
            Ok(found) => print(&Fact::Found(json(&found))),
            Err(error) => super::print_error(&error),
        }
    }
    Ok(())
}
