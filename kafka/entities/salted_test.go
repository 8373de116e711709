package entities_test

import (
	"crypto/hmac"
	"crypto/sha512"
)

// salted is Hi of RFC 5802, word for word.
func salted(password string, salt []byte, iterations int) []byte {
	mac := hmac.New(sha512.New, []byte(password))
	mac.Write(salt)
	mac.Write([]byte{0, 0, 0, 1})
	u := mac.Sum(nil)
	out := append([]byte(nil), u...)
	for range iterations - 1 {
		mac.Reset()
		mac.Write(u)
		u = mac.Sum(nil)
		for i := range out {
			out[i] ^= u[i]
		}
	}
	return out
}
