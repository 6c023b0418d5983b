"""The audit trail through the Python face."""

import os

import strongroom
from support import PIN, ModuleTest


class Audit(ModuleTest):
    def setUp(self):
        self.session = self.token.open(pin=PIN)
        self.addCleanup(self.session.close)

    def test_r75_a_managed_key_is_followed_from_its_making_to_its_end(self):
        before = max((record["sequence"] for record in self.session.audit()), default=0)
        key = self.session.generate_managed_key("alice", "btc")
        key.rotate()
        old, new = key.versions()
        with self.assertRaises(strongroom.Error):
            key.destroy_version(1, new["unique_id"])
        key.destroy_version(1, old["unique_id"])
        records = list(self.session.audit(after=before))
        told = [(record["operation"], record["result"]) for record in records]
        destroy = "SR_DestroyVersion"
        self.assertEqual(
            told,
            [("SR_GenerateKey", "CKR_OK"), ("SR_RotateKey", "CKR_OK"), (destroy, "CKR_ARGUMENTS_BAD"), (destroy, "CKR_OK")],
        )
        self.assertTrue(all((record["owner"], record["asset"]) == ("alice", "btc") for record in records))
        self.assertEqual(records[0]["pid"], os.getpid())
        self.assertEqual({key["version"] for key in records[1]["keys"]}, {1, 2})
        self.assertIn({"id": old["unique_id"], "version": 1}, records[-1]["keys"])
        self.assertIn(f"confirmed by {old['unique_id']}", records[-1]["detail"])
        report = self.session.verify_audit()
        self.assertTrue(report["ok"] and report["signatures_checked"])
        self.assertEqual(report["last"], records[-1]["sequence"])

    def test_an_owner_with_a_line_separator_breaks_no_record(self):
        before = max((record["sequence"] for record in self.session.audit()), default=0)
        owner = "alice\u2028 and\u2029bob"
        self.session.generate_managed_key(owner, "p256")
        self.assertEqual([record["owner"] for record in self.session.audit(after=before)], [owner])
