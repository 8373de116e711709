package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// readDocuments reads the objects of files, YAML or JSON, several in a file; "-" is
// standard input. A List counts as its items.
func (o *options) readDocuments(files []string) ([]*unstructured.Unstructured, error) {
	if len(files) == 0 {
		return nil, usagef("name a file with -f (- for standard input)")
	}
	var objects []*unstructured.Unstructured
	for _, file := range files {
		data, err := o.readFile(file)
		if err != nil {
			return nil, err
		}
		read, err := parseDocuments(data)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		objects = append(objects, read...)
	}
	if len(objects) == 0 {
		return nil, usagef("no object in %v", files)
	}
	return objects, nil
}

// ReadObjects reads the objects of one file, YAML or JSON, several in a file; "-" is in.
func ReadObjects(file string, in io.Reader) ([]*unstructured.Unstructured, error) {
	o := &options{Config: Config{In: in}}
	return o.readDocuments([]string{file})
}

func (o *options) readFile(file string) ([]byte, error) {
	if file == "-" {
		data, err := io.ReadAll(o.In)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return data, nil
	}
	data, err := os.ReadFile(file) //nolint:gosec // the user names the file
	if err != nil {
		return nil, fmt.Errorf("read the objects: %w", err)
	}
	return data, nil
}

func parseDocuments(data []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for number := 1; ; number++ {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", number, err)
		}
		read, err := parseDocument(document)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", number, err)
		}
		objects = append(objects, read...)
	}
}

func parseDocument(document []byte) ([]*unstructured.Unstructured, error) {
	// Strict: of two equal keys YAML would silently keep one.
	raw, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return nil, err
	}
	if text := string(bytes.TrimSpace(raw)); text == "null" || text == "{}" {
		return nil, nil
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(raw); err != nil {
		return nil, fmt.Errorf("not an object with apiVersion and kind: %w", err)
	}
	if !o.IsList() {
		return []*unstructured.Unstructured{o}, nil
	}
	list, err := o.ToList()
	if err != nil {
		return nil, fmt.Errorf("read the items of a list: %w", err)
	}
	items := make([]*unstructured.Unstructured, len(list.Items))
	for i := range list.Items {
		items[i] = &list.Items[i]
	}
	return items, nil
}
