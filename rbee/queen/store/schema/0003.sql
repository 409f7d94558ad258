-- `former_credential` is what a hive that joined again proves itself by until it first uses `credential`.

ALTER TABLE hives ADD COLUMN former_credential TEXT;
