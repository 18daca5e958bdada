import { defineConfig } from "vitest/config";
import shared from "../../../../vitest.shared.ts";

const { outputFile, ...rest } = shared.test ?? {};

/** The suite on sabotaged stores: a run of its own, since it is meant to fail. */
export default defineConfig({
  test: { ...rest, include: ["test/suite/*.suite.ts"], reporters: ["json"] },
});
