// A directory over HTTP, for reading. What was asked goes to standard error, a line for each request.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"

	"golang.org/x/net/webdav"
)

func main() {
	port := flag.Int("port", 0, "the port on 127.0.0.1")
	dir := flag.String("dir", "", "what is published")
	listings := flag.Bool("listings", true, "whether PROPFIND is answered")
	flag.Parse()
	log.SetFlags(0)
	files := &webdav.Handler{FileSystem: webdav.Dir(*dir), LockSystem: webdav.NewMemLS()}
	front := func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s", r.Method, r.URL.Path)
		switch {
		case r.Method == http.MethodGet, r.Method == http.MethodHead, r.Method == "PROPFIND" && *listings:
			files.ServeHTTP(w, r)
		default:
			http.Error(w, "for reading only", http.StatusMethodNotAllowed)
		}
	}
	log.Fatal(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), http.HandlerFunc(front)))
}
