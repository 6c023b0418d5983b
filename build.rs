//! Link arguments of the shared library: never unloaded, only `C_*` and `SR_*` exported (rustc's own export map does that).
fn main() {
    // A thread of the host that once called the library must be able to end after dlclose (rust-lang/rust#91979).
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,relro,-z,now");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libstrongroom.so");
    println!("cargo:rerun-if-changed=build.rs");
}
