"""ECDSA signatures as DER, against values that were worked out by hand from RFC 3279."""

import unittest

from strongroom import ecdsa_der


class Der(unittest.TestCase):
    def test_small_numbers_lose_leading_zeros(self):
        self.assertEqual(ecdsa_der(bytes([0, 1, 0, 0])), bytes.fromhex("3006020101020100"))

    def test_a_high_bit_gets_a_zero(self):
        self.assertEqual(ecdsa_der(bytes([0x80, 0x00, 0x7F, 0xFF])), bytes.fromhex("300902030080000202 7fff"))

    def test_p521_has_a_long_length(self):
        der = ecdsa_der(b"\x01" + b"\xff" * 65 + b"\x00" + b"\xff" * 65)
        self.assertEqual(der[:3], bytes([0x30, 0x81, len(der) - 3]))
        self.assertEqual(der[3:5], bytes([0x02, 66]))


if __name__ == "__main__":
    unittest.main()
