/**
 * A proxy for a backend's tests, in front of its server: what it enables is in `docs/adding-a-backend.md`.
 *
 * @packageDocumentation
 */
import { once } from "node:events";
import { type AddressInfo, createServer, connect as dial, type Socket } from "node:net";

/** Where a connection breaks, seen from the client. */
export type Cut =
  /** The server never gets the request. */
  | "before the request"
  /** The server has carried out the request; the client gets no reply. */
  | "after the request"
  /** The client gets the first half of the reply. */
  | "in the reply";

/** A TCP proxy in front of a server, for tests of what happens when a network fails. */
export interface TcpProxy {
  readonly port: number;
  /** The target's URL, leading through the proxy. */
  readonly url: string;
  /**
   * So often has a client spoken after a server, over all connections: requests that are sent together are one round trip.
   */
  readonly roundTrips: number;
  /** How many connections are open through it. */
  readonly connections: number;
  /**
   * Break the connection of the next request that contains a text, once. Resolves when it has happened.
   */
  cutNext(where: Cut, containing?: string): Promise<void>;
  /**
   * Lose the reply to the nth request, of those that contain a text, while `run` runs: the server has carried it out, `meanwhile`
   * runs, and the connection breaks. Resolves to whether there were so many.
   */
  loseReply(
    nth: number,
    run: () => Promise<unknown>,
    meanwhile?: () => Promise<unknown>,
    containing?: string,
  ): Promise<boolean>;
  /** Break all connections now. */
  cutAll(): void;
  /** From now on, swallow everything: connections are accepted and stay open, nothing is answered. */
  blackHole(): void;
  /** Undo {@link blackHole}. What was swallowed is gone, so connections that were caught in it break. */
  heal(): void;
  stop(): Promise<void>;
}

/** @param target A URL with host and port. */
export async function startProxy(target: string): Promise<TcpProxy> {
  const address = new URL(target);
  const lines = new Set<Line>();
  let roundTrips = 0;
  let swallowing = false;
  let plan: Plan | undefined;

  const server = createServer((client) => {
    const line = new Line(client, dial(Number(address.port), address.hostname));
    lines.add(line);
    let clientSpeaks = false;
    let cutting: typeof plan;
    const cut = () => {
      line.cut();
      cutting?.done();
      cutting = undefined;
    };
    let losing = false;
    client.on("data", (request) => {
      const isNew = !clientSpeaks;
      if (isNew) roundTrips++;
      clientSpeaks = true;
      if (swallowing) {
        line.swallowed = true;
        return;
      }
      const counts = plan?.containing === "" ? isNew : request.includes(plan?.containing ?? "");
      if (plan !== undefined && counts && --plan.nth === 0) {
        cutting = plan;
        plan = undefined;
        if (cutting.where === "before the request") return cut();
      }
      line.server.write(request);
    });
    line.server.on("data", (reply) => {
      clientSpeaks = false;
      if (swallowing) {
        line.swallowed = true;
      } else if (losing) {
        // The rest of a reply that is lost.
      } else if (cutting?.where === "after the request") {
        losing = true;
        void cutting.meanwhile().finally(cut);
      } else if (cutting?.where === "in the reply") {
        client.write(reply.subarray(0, Math.ceil(reply.length / 2)), cut);
      } else {
        client.write(reply);
      }
    });
    line.onClose(() => lines.delete(line));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  server.unref();
  const { port } = server.address() as AddressInfo;
  const url = new URL(target);
  url.hostname = "127.0.0.1";
  url.port = String(port);

  return {
    port,
    url: url.href,
    get roundTrips() {
      return roundTrips;
    },
    get connections() {
      return lines.size;
    },
    cutNext: (where, containing = "") =>
      new Promise((done) => {
        plan = { where, containing, done, nth: 1, meanwhile: async () => {} };
      }),
    async loseReply(nth, run, meanwhile = async () => {}, containing = "") {
      let lost = false;
      const done = () => {
        lost = true;
      };
      plan = { where: "after the request", containing, done, nth, meanwhile };
      await run().finally(() => {
        plan = undefined;
      });
      return lost;
    },
    cutAll() {
      for (const line of lines) line.cut();
    },
    blackHole() {
      swallowing = true;
    },
    heal() {
      swallowing = false;
      for (const line of lines) if (line.swallowed) line.cut();
    },
    async stop() {
      for (const line of lines) line.cut();
      server.close();
      await once(server, "close");
    },
  };
}

/** What is to break next. */
interface Plan {
  readonly where: Cut;
  readonly containing: string;
  /** How many requests it takes until then. */
  nth: number;
  readonly meanwhile: () => Promise<unknown>;
  readonly done: () => void;
}

/** A client's connection and the one to the server that belongs to it: when one ends, so does the other. */
class Line {
  readonly client: Socket;
  readonly server: Socket;
  swallowed = false;

  constructor(client: Socket, server: Socket) {
    this.client = client;
    this.server = server;
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      socket.setNoDelay(true);
      socket.on("error", () => {}); // `close` follows
      socket.on("close", (broken) => (broken ? other.destroy() : other.end()));
    }
  }

  cut(): void {
    this.client.resetAndDestroy();
    this.server.destroy();
  }

  onClose(listener: () => void): void {
    this.client.on("close", listener);
  }
}
