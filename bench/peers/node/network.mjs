import cluster from "node:cluster";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { connect, createServer } from "node:net";
import { has, number, perOperation, report, warmUp } from "./measure.mjs";

const MESSAGE_BYTES = 64;
const BACKLOG = 4096;

// A client that resets its connection has ended it.
const listen = async (talk) => {
  const server = createServer({ noDelay: true }, (connection) => {
    connection.on("error", () => connection.destroy());
    talk(connection);
  });
  server.listen(number("--port", 0), "127.0.0.1", BACKLOG);
  await once(server, "listening");
  return server;
};

const rounds = (clients, each) => {
  const one = (client) =>
    new Promise((done) => {
      const message = Buffer.alloc(MESSAGE_BYTES);
      let left = each;
      let missing = MESSAGE_BYTES;
      const take = (bytes) => {
        missing -= bytes.length;
        if (missing > 0) return;
        missing = MESSAGE_BYTES;
        if (--left > 0) {
          client.write(message);
          return;
        }
        client.off("data", take);
        done();
      };
      client.on("data", take);
      client.write(message);
    });
  return Promise.all(clients.map(one));
};

// Both ends in one process, as in bench/echo.cpp; with --serve the server's half alone.
export const echo = async () => {
  const server = await listen((connection) => connection.on("data", (bytes) => connection.write(bytes)));
  if (has("--serve")) return;
  const clients = [];
  for (let i = 0; i < number("--connections", 1); i++) {
    clients.push(connect({ port: server.address().port, host: "127.0.0.1", noDelay: true }));
    await once(clients[i], "connect");
  }
  const each = Math.floor(number("--count", 1000000) / clients.length);
  await warmUp(() => rounds(clients, Math.floor(each / 10) + 1));
  report("round_trip", await perOperation(each * clients.length, () => rounds(clients, each)), "ns");
  process.exit(0);
};

const REPLY = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";
const BATCH = 16;
const END = Buffer.from("\r\n\r\n");
const CR = END[0];

// Counts ends of requests; remembers one that was cut by the end of a read.
const requestCounter = () => {
  let matched = 0;
  return (bytes) => {
    let requests = 0;
    for (let i = 0; i < bytes.length; i++) {
      if (bytes[i] === END[matched]) {
        if (++matched === END.length) {
          requests++;
          matched = 0;
        }
      } else {
        matched = bytes[i] === CR ? 1 : 0;
      }
    }
    return requests;
  };
};

const serveReplies = () => {
  const replies = Buffer.from(REPLY.repeat(BATCH));
  return listen((connection) => {
    const count = requestCounter();
    connection.on("data", (bytes) => {
      for (let owed = count(bytes); owed > 0; owed -= BATCH) {
        connection.write(replies.subarray(0, Math.min(owed, BATCH) * REPLY.length));
      }
    });
  });
};

const serveNodeHttp = () => {
  const answer = (_, to) => {
    to.writeHead(200, { "Content-Type": "text/plain", "Content-Length": 13 });
    to.end("Hello, World!");
  };
  createHttpServer(answer).listen(number("--port", 0), "127.0.0.1", BACKLOG);
};

// More workers are processes that share the port; the first process hands them the connections.
export const http = async () => {
  const workers = number("--workers", 1);
  if (workers > 1 && cluster.isPrimary) {
    for (let i = 0; i < workers; i++) cluster.fork();
    return;
  }
  await (has("--nodehttp") ? serveNodeHttp() : serveReplies());
};
