//go:build tools

// Pins h2spec, the conformance suite, and what it is built from: `go build` here needs nothing but go.sum's octets.
package tool

import _ "github.com/summerwind/h2spec/cmd/h2spec"
