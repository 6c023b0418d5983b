//! The black-box suite: the built module, loaded as a host loads it. One binary, one file a subject.

mod attributes;
mod audit;
mod audit_keys;
mod audit_tampering;
mod backup;
mod boundaries;
mod canary;
mod concurrency;
mod damage;
mod durability;
mod exports;
mod fork;
mod hsm;
mod kms;
mod lifecycle;
mod limits;
mod login;
mod managed;
mod mechanism_rows;
mod mechanisms;
mod migrate;
mod operations;
mod owner;
mod scheduler;
mod scope;
mod slots;
mod stale;
mod tables;

/// The helper processes of the tests.
const ROLES: &[(&str, ffi_tests::isolate::Part)] = &[
    ("audit-due", audit_keys::role_due),
    ("audit-keys", audit::role_keys),
    ("audit-lock", audit_keys::role_lock),
    ("audit-make", audit_keys::role_make),
    ("audit-managed", audit_keys::role_work),
    ("audit-read-only", audit::role_read_only),
    ("canary", canary::role_canary),
    ("churn", durability::role_churn),
    ("count-rotations", scheduler::role_count_rotations),
    ("crowd", concurrency::role_crowd),
    ("destroy", concurrency::role_destroy),
    ("exit", lifecycle::role_exit),
    ("export", backup::role_export),
    ("import", backup::role_import),
    ("import-new", backup::role_import_new),
    ("finalize-while-rotating", scheduler::role_finalize_while_rotating),
    ("init-again", boundaries::role_init_again),
    ("import-legacy", migrate::role_import_legacy),
    ("list-slots", slots::role_list_slots),
    ("make-same", managed::role_make_same),
    ("make-things", slots::role_make_things),
    ("make-token", lifecycle::role_make_token),
    ("owner-change", owner::role_change),
    ("owner-lease", owner::role_lease),
    ("owner-make", owner::role_make),
    ("owner-right", owner::role_right),
    ("owner-rotate", owner::role_rotate_on),
    ("owner-state", owner::role_state),
    ("owner-wrong", owner::role_wrong),
    ("read-only", damage::role_read_only),
    ("read-values", boundaries::role_read_values),
    ("relabel", boundaries::role_relabel),
    ("rewrap", kms::role_rewrap),
    ("rewrap-keys", scope::role_rewrap_keys),
    ("rotate", managed::role_rotate),
    ("rotate-due", managed::role_rotate_due),
    ("rotate-in-parts", scheduler::role_rotate_in_parts),
    ("salvo", boundaries::role_salvo),
    ("survey", damage::role_survey),
    ("take-away", stale::role_take_away),
    ("try-pin", login::role_try_pin),
    ("use-old", managed::role_use_old),
    ("use-up", scheduler::role_use_up),
    ("unique-ids", attributes::role_unique_ids),
    ("wrong-pin", login::role_wrong_pin),
];

/// Plays a helper process; alone it does nothing.
#[test]
fn stage() {
    ffi_tests::Role::play(ROLES);
}
