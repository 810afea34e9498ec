// Package page has a browser use the page of a server as an administrator does.
package page
