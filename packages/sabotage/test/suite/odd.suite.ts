import { testDefects } from "./subjects.ts";

testDefects(1);
