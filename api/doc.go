// Package api is the HTTP API between the administrator of a store and its server.
// Server serves an admin.Administrator; Client is an admin.Administrator that sends
// requests to a server.
//
// The server listens on a Unix socket in the directory of its store, so that the API is
// open to those who may open the store. The configuration can add a TCP port, where
// requests need a secret. Times are RFC 3339, sizes are bytes, identifiers are
// hexadecimal. Parameters are a JSON object in the body; unknown keys are refused. The
// tables named routes list every request; package v1 has the JSON, and the files v1*.go
// convert it.
//
// An error is a JSON object with a kind, for programs, and a text in "error", for
// people, with a status code that is not 2xx. The response of a long operation that
// reports its progress is lines of JSON: {"progress": …}, any number of them, then
// {"result": …} or an error.
package api
