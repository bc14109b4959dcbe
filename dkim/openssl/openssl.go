// Package openssl signs with the RSA of libcrypto 3, where that library is there.
package openssl

import _ "github.com/ebitengine/purego" // opens the library
