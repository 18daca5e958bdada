/**
 * Chatstore as users get it: projects outside the repository that install the packed packages, each with the tools that somebody
 * has. Needs built packages and the npm registry: run it by `pnpm packed`, or one room of it by `pnpm packed jest`.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";

const folder = join(import.meta.dirname, "packed");
const rooms = readdirSync(folder)
  .map((name) => name.replace(".mjs", ""))
  .filter((name) => name !== "project");
const wanted = process.argv.slice(2);
for (const name of wanted) {
  if (!rooms.includes(name))
    throw new Error(`There is no room ${name}; known: ${rooms.join(", ")}`);
}
let failed = 0;
for (const room of wanted.length > 0 ? wanted : rooms) {
  const begun = Date.now();
  console.log(`── ${room}`);
  try {
    await import(`./packed/${room}.mjs`);
  } catch (error) {
    failed++;
    const { message, stdout, stderr } =
      /** @type {{ message: string, stdout?: string, stderr?: string }} */ (error);
    console.error(`FAILED: ${message}\n${stdout ?? ""}\n${stderr ?? ""}`);
  }
  console.log(`   ${((Date.now() - begun) / 1000).toFixed(0)} s`);
}
process.exitCode = failed > 0 ? 1 : 0;
