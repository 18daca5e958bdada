import { testSabotaged } from "./subjects.ts";

testSabotaged("sound");
