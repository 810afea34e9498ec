// Package copies copies by token with a libiscsi client of its own, and compares each
// byte with a model.
package copies
