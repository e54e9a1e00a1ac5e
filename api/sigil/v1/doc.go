// Package sigilv1 is the API of sigild's two sockets, generated from the .proto
// files beside it by `make generate`; docs/authority.md says who may call what,
// docs/errors.md what is answered. It refuses nothing by itself: package server does.
package sigilv1
