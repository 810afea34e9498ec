package api

import "context"

// Here and in the files v1*.go is what turns what an Administrator takes and returns
// into the JSON of package v1, and back. Where the fields are the same it is a
// conversion of the struct, which stops compiling when one side gets another field.
// Names end in V1 for what is sent, in Of for what is received.

// asV1 turns the results of an Administrator into those of a route.
func asV1[T, W any](convert func(T) W) func(T, error) (any, error) {
	return func(result T, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		return convert(result), nil
	}
}

// askFor sends a request and converts the answer.
func askFor[W, T any](ctx context.Context, c *Client, method, path string, parameters any, convert func(W) T) (result T, err error) {
	answer, err := ask[W](ctx, c, method, path, parameters)
	if err != nil {
		return result, err
	}
	return convert(answer), nil
}

// heard is a function that converts and tells a progress, nil where that is nil.
func heard[W, T any](progress func(T), convert func(W) T) func(W) {
	if progress == nil {
		return nil
	}
	return func(p W) { progress(convert(p)) }
}

// each returns a function that converts lists; nil stays nil, which JSON tells from an
// empty one.
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
