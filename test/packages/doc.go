// Package packages installs what scripts/package makes, as an administrator does, has
// Debian's checkers judge it, and builds the container image.
package packages
