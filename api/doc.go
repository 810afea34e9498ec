// Package api is HTTP+JSON between the administrator of a store and its server. Server
// answers requests with what an admin.Administrator does; Client is an
// admin.Administrator that asks a server.
//
// The server listens on a Unix socket in the directory of its store: callers
// that may open the store may ask about it, no others. Times are RFC 3339, sizes
// are bytes, identifiers are hexadecimal. Parameters are a JSON object in the
// body; unknown keys are refused. The table in routes.go lists every request; package
// v1 has the JSON, and the files v1*.go convert it.
//
// An error is a JSON object with a kind, for programs, and a text in "error",
// for people, under a status code that is not 2xx. A long operation that reports
// its progress answers with lines of JSON: {"progress": …}, any number of them,
// then {"result": …} or an error.
package api
