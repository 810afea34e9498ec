// Package web shows a server to an administrator in a browser, and lets them act: HTML
// that the server makes, a style and one small script, all of them in the binary.
//
// Who knows a secret of the API logs in with it, over TLS or on the loopback, and gets a
// session with the role of the secret; package api knows the secrets. A session is a cookie
// that scripts cannot read. It ends at a logout, after a time, and when a reload changes or
// removes its secret. Each act is confirmed on a page of its own, has the session's token
// against forged requests, and is in the audit log with the name of the secret.
//
// Names of initiators, volumes and files are hostile input: html/template escapes them, and
// the Content-Security-Policy allows nothing but the style and the script of this package.
package web
