package api

import "context"

// This file and the others named v1*.go convert the types of package admin to the JSON
// of package v1 and back. If the fields are the same, it is a conversion of structs,
// which does not compile when one side gets another field. Names end in V1 for what is
// sent, in Of for what is received.

// asV1 converts the results of an Administrator's method to those of a route.
func asV1[T, W any](convert func(T) W) func(T, error) (any, error) {
	return func(result T, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		return convert(result), nil
	}
}

// requestAs sends a request and converts the response.
func requestAs[W, T any](ctx context.Context, c *Client, method, path string, parameters any, convert func(W) T) (result T, err error) {
	response, err := roundTrip[W](ctx, c, method, path, parameters)
	if err != nil {
		return result, err
	}
	return convert(response), nil
}

// converting returns a function that converts its argument for progress; nil if
// progress is nil.
func converting[W, T any](progress func(T), convert func(W) T) func(W) {
	if progress == nil {
		return nil
	}
	return func(p W) { progress(convert(p)) }
}

// each returns a function that converts lists; nil stays nil, which JSON distinguishes
// from an empty list.
func each[A, B any](convert func(A) B) func([]A) []B {
	return func(list []A) []B {
		if list == nil {
			return nil
		}
		converted := make([]B, len(list))
		for i, x := range list {
			converted[i] = convert(x)
		}
		return converted
	}
}
