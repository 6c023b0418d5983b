//! The black-box suite: the built module, loaded as a host loads it. One binary, one file a subject.

mod exports;
mod fork;
mod lifecycle;
mod tables;

/// The helper processes of the tests.
const ROLES: &[(&str, fn(&str))] = &[("exit", lifecycle::role_exit), ("make-token", lifecycle::role_make_token)];

/// Plays a helper process; alone it does nothing.
#[test]
fn stage() {
    ffi_tests::Role::play(ROLES);
}
