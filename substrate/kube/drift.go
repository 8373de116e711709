package kube

import (
	"reflect"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// empty makes an object the zero of its type, so that a read fills in nothing but what is
// there.
func empty(o client.Object) {
	v := reflect.ValueOf(o).Elem()
	v.Set(reflect.Zero(v.Type()))
}

// dropNulls removes what stands for nothing.
func dropNulls(content map[string]any) {
	for key, value := range content {
		switch v := value.(type) {
		case nil:
			delete(content, key)
		case map[string]any:
			dropNulls(v)
		case []any:
			for _, element := range v {
				if m, ok := element.(map[string]any); ok {
					dropNulls(m)
				}
			}
		}
	}
}

// holds says whether all that is wanted is in an object. What others added to it stays,
// but for selectors, which hold exactly what is wanted.
func holds(have, want map[string]any) bool {
	for key, wanted := range want {
		if key == "apiVersion" || key == "kind" {
			continue // not in what a cache gives
		}
		found, ok := have[key]
		if key == "selector" && !reflect.DeepEqual(found, wanted) || !ok && !nothing(wanted) || ok && !holdsValue(found, wanted) {
			return false
		}
	}
	return true
}

func nothing(value any) bool {
	m, ok := value.(map[string]any)
	return ok && len(m) == 0
}

func holdsValue(have, want any) bool {
	switch w := want.(type) {
	case map[string]any:
		h, ok := have.(map[string]any)
		return ok && holds(h, w)
	case []any:
		h, ok := have.([]any)
		return ok && holdsList(h, w)
	default:
		return reflect.DeepEqual(have, want)
	}
}

// holdsList finds the elements that have a name or a uid, as Kubernetes itself merges
// them; other lists are the same or not.
func holdsList(have, want []any) bool {
	for _, key := range []string{"uid", "name"} {
		if keyed(want, key) && keyed(have, key) {
			return holdsKeyed(have, want, key)
		}
	}
	return reflect.DeepEqual(have, want)
}

func keyed(list []any, key string) bool {
	for _, element := range list {
		m, ok := element.(map[string]any)
		if !ok || m[key] == nil {
			return false
		}
	}
	return true
}

func holdsKeyed(have, want []any, key string) bool {
	for _, element := range want {
		w, _ := element.(map[string]any)
		found := false
		for _, candidate := range have {
			if h, _ := candidate.(map[string]any); h[key] == w[key] {
				found = holds(h, w)
			}
		}
		if !found {
			return false
		}
	}
	return true
}
