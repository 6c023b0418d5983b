"""The SQL that docs/format.md states is the SQL that the store runs."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def normal(sql):
    """Leaves out comments and the layout."""
    return re.sub(r"\s+", " ", re.sub(r"--[^\n]*", "", sql)).strip()


class Format(unittest.TestCase):
    def test_the_schema_is_the_documented_one(self):
        documented = "\n".join(re.findall(r"```sql\n(.*?)```", (ROOT / "docs/format.md").read_text(), re.DOTALL))
        migrations = sorted((ROOT / "src/store/migrations").glob("*.sql"))
        self.assertTrue(migrations)
        self.assertEqual(normal(documented), normal("\n".join(path.read_text() for path in migrations)))


if __name__ == "__main__":
    unittest.main()
