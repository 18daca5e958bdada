// The built suite: its child processes run dist/conformance/worker.js.
import { testChatStore } from "../dist/conformance/index.js";

testChatStore({
  name: "memory",
  module: new URL("../dist/index.js", import.meta.url),
  factory: "memoryChatStore",
  options: (namespace) => ({ name: namespace }),
});
