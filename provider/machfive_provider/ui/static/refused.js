// For the pages that only say why there is nothing to see.

import { followTheme } from "./airflow.js";

followTheme();
