// Package fields gives a value something in every field, for tests of encodings: a field
// that an encoding forgets is then missed.
package fields

import (
	"reflect"
	"time"
)

// at has a part of each unit of time.
var at = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

// Fill sets every exported field of what p points to, and of what that contains, to a
// value other than zero. Lists and maps get one entry.
func Fill(p any) { fill(reflect.ValueOf(p).Elem()) }

func fill(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(at))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case v.Kind() == reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	default:
		fillScalar(v)
	}
}

func fillScalar(v reflect.Value) {
	switch {
	case v.Kind() == reflect.Interface:
		v.Set(reflect.ValueOf("any"))
	case v.Kind() == reflect.String:
		v.SetString("text")
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(1)
	case v.CanUint():
		v.SetUint(1)
	default:
		v.SetFloat(1.5)
	}
}
