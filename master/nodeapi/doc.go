// Package nodeapi is the node protocol: how the leading master and the agents talk to each other. It is private to this
// software; frameworks and operators speak the v1 API.
//
// The model: a protobuf message over HTTP/1.1 POST each way. The leader sends a Call to an agent (PathCall) and gets a
// Reply; an agent sends a Report to the leader (PathReport) and gets an empty ReportReply. Every message carries the epoch
// of a term of office, and an agent obeys none below the highest that it has obeyed: that, not the record of a node in the
// mesh, is what makes an order an order. All messages may be repeated. A connection is opened when there is something
// to say and kept for a while.
//
// The sending half is Client. The receiving half is ServeCall and ServeReport: they take a request apart from whatever
// HTTP server it came through, authenticate it, decode it, and turn what the handler says into an answer, so that an
// endpoint is a few lines of copying. Errors that a peer branches on (ErrStaleEpoch, ErrWrongAgent, ErrNotLeading,
// ErrUnauthenticated, ErrMalformed) travel as HTTP statuses and come out of Client as themselves.
//
// # Authentication
//
// With a cluster key, each request carries the sender's clock, a nonce and an HMAC-SHA256 over method, path, clock, nonce
// and body, keyed by a key that is derived from the cluster key; each answer carries an HMAC over the request's nonce,
// the status and the body. A request is taken once, within Window of the receiver's clock. Clocks at the edge are wrong
// by hours or years, so a receiver that refuses a request for its time alone says, under its own HMAC, what its clock
// is, and the sender signs again with that. Without a key nothing is signed and nothing is checked.
//
// While the cluster's key is replaced there are two (Keys): a request is signed with the first and accepted with either, and an answer is
// sealed with the key of its request. So no call fails as long as the two ends' keys are no more than one step of a rotation apart.
//
// A key derived from the cluster key means that any node can command any node. That is enough on one machine and on a
// site of one trust; between machines that do not trust each other the protocol belongs on mutual TLS, with the role in
// the certificate (ClientConfig.TLS).
//
// The package also turns resources, attributes and discovery into the plain messages of gossip/catalog and back, because
// both ends of the protocol need the two to agree.
package nodeapi

//go:generate protoc -I ../.. --go_out=../.. --go_opt=module=starling master/nodeapi/nodeapi.proto

// Where the protocol is served: PathCall by agents, PathReport by masters. The method is POST.
const (
	PathCall   = "/node/v1/call"
	PathReport = "/node/v1/report"
)

// ContentType is that of every request and of every answer with status 200; other answers are a sentence of plain text.
const ContentType = "application/x-protobuf"

// MaxBody is the largest body, in bytes, of a request or an answer. The description of an agent with ten thousand tasks
// is about half of it.
const MaxBody = 64 << 20
