// fake-gcs-server with that part of Cloud Storage's XML interface that it lacks: plain uploads with their precondition, and
// listings that begin behind a name and come in pages. Everything else is passed on.
package main

import (
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

// Small, so that listings of tests turn pages; Cloud Storage has 1000.
const pageSize = 20

type front struct {
	emulator *fakestorage.Server
}

func main() {
	port := flag.Int("port", 0, "the port on 127.0.0.1")
	flag.Parse()
	address := fmt.Sprintf("127.0.0.1:%d", *port)
	emulator, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true, PublicHost: address})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(address, front{emulator}))
}

func (f front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, object, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	bucket, errBucket := url.PathUnescape(bucket)
	object, errObject := url.PathUnescape(object)
	switch {
	case errBucket != nil || errObject != nil || bucket == "":
		refuse(w, http.StatusBadRequest, "InvalidURI")
	case r.Method == http.MethodPut && object == "":
		f.emulator.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: bucket})
	case r.Method == http.MethodPut:
		f.put(w, r, bucket, object)
	case r.Method == http.MethodGet && object == "":
		f.list(w, r, bucket)
	default:
		f.emulator.HTTPHandler().ServeHTTP(w, r)
	}
}

// put passes an upload on as one of the JSON interface.
func (f front) put(w http.ResponseWriter, r *http.Request, bucket, object string) {
	query := url.Values{"uploadType": {"media"}, "name": {object}}
	if generation := r.Header.Get("x-goog-if-generation-match"); generation != "" {
		query.Set("ifGenerationMatch", generation)
	}
	upload := r.Clone(r.Context())
	upload.Method = http.MethodPost
	upload.URL = &url.URL{Path: "/upload/storage/v1/b/" + bucket + "/o", RawQuery: query.Encode()}
	answer := httptest.NewRecorder()
	f.emulator.HTTPHandler().ServeHTTP(answer, upload)
	if answer.Code != http.StatusOK {
		code := "InternalError"
		switch answer.Code {
		case http.StatusPreconditionFailed:
			code = "PreconditionFailed"
		case http.StatusNotFound:
			code = "NoSuchBucket"
		}
		refuse(w, answer.Code, code)
		return
	}
	var made struct {
		Etag       string `json:"etag"`
		Generation string `json:"generation"`
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &made); err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("ETag", fmt.Sprintf("%q", made.Etag))
	w.Header().Set("x-goog-generation", made.Generation)
}

type object struct {
	Key, LastModified, ETag string
	Size                    int64
}

type folder struct{ Prefix string }

type listing struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Contents              []object
	CommonPrefixes        []folder
	NextContinuationToken string `xml:",omitempty"`
}

func (f front) list(w http.ResponseWriter, r *http.Request, bucket string) {
	query := r.URL.Query()
	after := max(query.Get("start-after"), query.Get("continuation-token"))
	options := fakestorage.ListOptions{Prefix: query.Get("prefix"), Delimiter: query.Get("delimiter")}
	found, err := f.emulator.ListObjectsWithOptionsPaginated(bucket, options)
	if err != nil {
		refuse(w, http.StatusNotFound, "NoSuchBucket")
		return
	}
	var page listing
	for _, item := range found.Objects {
		if item.Name <= after {
			continue
		}
		if len(page.Contents) == pageSize {
			page.NextContinuationToken = page.Contents[pageSize-1].Key
			break
		}
		modified := item.Updated.UTC().Format(time.RFC3339Nano)
		page.Contents = append(page.Contents, object{item.Name, modified, item.Etag, item.Size})
	}
	for _, prefix := range found.Prefixes {
		if prefix > after {
			page.CommonPrefixes = append(page.CommonPrefixes, folder{prefix})
		}
	}
	answer(w, http.StatusOK, page)
}

type failure struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
}

func refuse(w http.ResponseWriter, status int, code string) {
	answer(w, status, failure{Code: code})
}

func answer(w http.ResponseWriter, status int, body any) {
	text, err := xml.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	w.Write(text)
}
